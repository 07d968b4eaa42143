"""What a running policy obeys and does, step by step, without ROS, clocks or threads.

The node and replay share it: one tells it what arrives, the other what was recorded.
"""
