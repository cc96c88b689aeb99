"""SQL as text: the effects of statements on their session, and statements without their values."""
