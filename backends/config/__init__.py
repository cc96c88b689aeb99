"""What the settings say of a pool, its policy and its connections."""
