"""The simulated robot: Meta-World on MuJoCo, as a robot with two cameras. No ROS."""
