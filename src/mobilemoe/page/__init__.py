"""What every report page is made of: the look, words and numbers as HTML, inline figures."""
