# The environment of `make demo` and `make test`; for a shell of your own:
#   source scripts/environment.bash
# ROS 2 comes from .venv, this package from install/. On a ROS 2 installation source that one's
# setup.bash and install/setup.bash instead.

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Libraries of a ROS 2 installation must not mix with those of the wheels.
unset PYTHONPATH LD_LIBRARY_PATH COLCON_PREFIX_PATH _ROS_WHEELS_BOOTSTRAP_COMPLETE
export VIRTUAL_ENV="$repository/.venv"
export PATH="$VIRTUAL_ENV/bin:$PATH"
export AMENT_PREFIX_PATH="$VIRTUAL_ENV" CMAKE_PREFIX_PATH="$VIRTUAL_ENV"
export ROS_DISTRO=jazzy RMW_IMPLEMENTATION=rmw_fastrtps_cpp
if [ -f "$repository/install/local_setup.bash" ]; then
  source "$repository/install/local_setup.bash"
fi

# Idle PyTorch threads sleep: simulator and policy share the cores.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"

unset repository
