"""Session state: what a lease's owner has left in the session, and the way back."""
