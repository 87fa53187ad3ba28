"""What a node lets people see."""
