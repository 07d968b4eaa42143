"""Parts of the node `simulated_robot`: parameters, outputs, and the two ways that time passes."""
