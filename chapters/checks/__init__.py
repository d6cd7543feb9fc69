"""Automatic feedback for the exercises: one module a chapter, used as `from checks
import ch05`."""
