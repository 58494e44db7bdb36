//! A program that copies STDIN to STDOUT: what lines mode itself costs.

use std::io;

fn main() -> io::Result<()> {
    io::copy(&mut io::stdin().lock(), &mut io::stdout().lock()).map(drop)
}
