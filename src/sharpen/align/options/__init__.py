"""What the methods are called and may be told: data that loads without torch."""
