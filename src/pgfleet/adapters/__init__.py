"""The fleet for those who use another driver or framework. Each room needs its own extra; none is imported by another."""
