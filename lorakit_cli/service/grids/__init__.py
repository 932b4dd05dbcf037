"""Grids: many pictures that differ in one, two or three ways, drawn from one loaded base."""
