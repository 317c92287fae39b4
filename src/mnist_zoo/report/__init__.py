"""What people look at; given tensors and numbers, it knows neither networks nor data."""
