use std::io::{self, Write};
use std::process::exit;

fn main() -> io::Result<()> {
    for line in io::stdin().lines() {
        let line = line?;
        if line.starts_with("error") {
            eprintln!("cannot work on {:?}", line);
            exit(1);
        }
        if !line.contains("secret") {
            writeln!(io::stdout(), "{}", line.to_uppercase())?;
        }
    }
    Ok(())
}
