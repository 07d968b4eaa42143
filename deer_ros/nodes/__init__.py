"""ROS 2 nodes. The only part that imports rclpy."""
