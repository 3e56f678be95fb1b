"""The ROS 2 side: node, messages, replay. The only place of the package that imports rclpy."""
