"""The paper as a library: numpy, OpenCV and torch; no queue, no database."""
