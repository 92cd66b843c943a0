"""What a manifest would make, whether it would be accepted, whether it fits the cluster now, and what it costs."""
