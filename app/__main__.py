"""`python -m app`."""

from app.main import main

main()
