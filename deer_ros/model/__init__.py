"""The early-exit vision-language-action network. Needs torch and transformers, nothing of ROS."""
