"""The loop and what it is made of; it knows no tracker."""
