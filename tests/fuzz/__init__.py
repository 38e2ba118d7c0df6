"""Random and damaged inputs for every reader; run by ``make fuzz``."""
