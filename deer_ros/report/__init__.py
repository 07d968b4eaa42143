"""What a run is shown and kept as: tables, contact sheets, JSON. Knows no model and no ROS."""
