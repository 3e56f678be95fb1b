"""Reading what the world hands over, without ROS: pictures, folders, videos, cameras (sources), bags, image messages (decode)."""
