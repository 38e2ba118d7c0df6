"""What a sweep would take, before it starts: memory and time, without loading weights."""
