//! Asks the rules about many targets at once: with the configuration of the proxy, through the code of the proxy.
//!
//! `judge portcullis.yaml` reads targets from standard input, each behind its length (two bytes, big end first), and
//! writes one line for each service and target: `public` and the target as it would be forwarded, `other` (a login or
//! a refusal by the rules), or `refused` (400). All answers for the first service come first.

use std::io::{BufWriter, Read as _, Write as _};
use std::path::PathBuf;

use http::Method;
use portcullis::config::{self, Environment, Service, Source};
use portcullis::path::NormalPath;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let path = std::env::args_os().nth(1).ok_or("which configuration?")?;
    let config = config::load(&Source::Path(PathBuf::from(path)), &Environment::of_process())
        .map_err(|mistakes| mistakes.to_string())?;
    let mut input = Vec::new();
    std::io::stdin().lock().read_to_end(&mut input)?;
    let mut output = BufWriter::new(std::io::stdout().lock());
    for service in &config.services {
        let mut rest = input.as_slice();
        while let Some((length, behind)) = rest.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*length));
            let (target, behind) = behind.split_at_checked(length).ok_or("the last target is cut off")?;
            match judge(service, target) {
                Verdict::Public(path) => writeln!(output, "public {}", path.as_str())?,
                Verdict::Other => output.write_all(b"other\n")?,
                Verdict::Refused => output.write_all(b"refused\n")?,
            }
            rest = behind;
        }
    }
    output.flush()?;
    Ok(())
}

enum Verdict {
    Public(NormalPath),
    Other,
    Refused,
}

fn judge(service: &Service, target: &[u8]) -> Verdict {
    let Ok(target) = std::str::from_utf8(target) else { return Verdict::Refused };
    let Ok(path) = NormalPath::parse(target, &service.path) else { return Verdict::Refused };
    match service.policy.find(&Method::GET, &path) {
        Ok(ruling) if ruling.is_public() => Verdict::Public(path),
        Ok(_) => Verdict::Other,
        Err(_) => Verdict::Refused,
    }
}
