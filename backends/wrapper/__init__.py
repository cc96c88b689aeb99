"""What Django sees: its ``DatabaseWrapper``, the cursors, the schema editor."""
