"""The ROS 2 side: node, messages, replay. The only place that imports rclpy, but for `hmr-ros demo` and `doctor` when they run."""
