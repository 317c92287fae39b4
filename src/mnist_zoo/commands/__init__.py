"""One module a command, with ``main(argv)``, imported only when it is called; what they share."""
