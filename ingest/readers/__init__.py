"""Readers: one module a file format, and `read.py`, which chooses. They turn bytes into text with sections.

They may import `corpus`; each parsing library is imported by one module only, which translates its errors.
"""
