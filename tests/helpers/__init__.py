"""What tests share: example objects, small models, servers on loopback."""
