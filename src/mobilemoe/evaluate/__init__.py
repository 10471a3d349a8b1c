"""How good a model is: held-out loss, agreement between its forms, use of its experts."""
