"""One module a command; each has ``main(argv)`` and is imported only when it is called."""
