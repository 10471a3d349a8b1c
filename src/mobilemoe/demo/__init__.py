"""The main job in one command, and the report that it leaves behind."""
