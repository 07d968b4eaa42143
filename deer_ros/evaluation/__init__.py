"""Closed-loop rollouts of a policy in the simulator, without ROS: success against cost."""
