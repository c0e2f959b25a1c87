"""The front door: the command line and the composed settings. The only package that imports every side."""
