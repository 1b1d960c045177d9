"""How many replicas a deployment with `spec.autoscaling` has. What decides needs nothing but its arguments."""
