"""What several commands share: arguments, the screen, and the data they work on."""
