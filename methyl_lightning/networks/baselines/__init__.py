"""What a network must beat, most of it in closed form."""
