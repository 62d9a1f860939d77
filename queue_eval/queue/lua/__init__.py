"""Scripts that Redis carries out in one step, and their signatures."""
