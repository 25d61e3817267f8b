"""What flows through the compiler: layer plans, programs and signatures, graphs as text."""
