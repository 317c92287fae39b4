"""The commands: a module each, with ``main(argv)``, imported only when it is called."""
