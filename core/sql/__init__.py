"""SQL as text: what a statement leaves in its session, and what it looks like without values."""
