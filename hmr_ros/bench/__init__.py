"""What `hmr-ros bench` measures with: clips in memory, statistics, MediaPipe beside us, tables and the plot."""
