"""What should exist: one pure, typed builder for each kind of child. No I/O, no clock, no environment."""
