"""`hmr-ros view` without ROS: bodies in a browser. Where they come from is ros/view_source.py or a recording."""
