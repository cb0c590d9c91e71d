//! Owns reading what the kernel says is mounted and swapped on. Total: any text gives an answer.
//! Touches nothing.

use serde::Serialize;

/// One mount of this process's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// Device number, major and minor.
    pub number: (u32, u32),
    /// The part of the file system that is mounted: `/` for all of it.
    pub root: String,
    /// Where.
    pub point: String,
    /// File system by the kernel's name.
    pub kind: String,
    /// What was mounted, as `mount` was told.
    pub source: String,
}

/// Reads `/proc/self/mountinfo` (proc(5)); lines that are none are left out.
pub fn mounts(mountinfo: &str) -> Vec<Mount> {
    mountinfo.lines().filter_map(mount).collect()
}

fn mount(line: &str) -> Option<Mount> {
    let (fixed, rest) = line.split_once(" - ")?;
    let fixed: Vec<&str> = fixed.split(' ').collect();
    let mut rest = rest.split(' ');
    let (major, minor) = fixed.get(2)?.split_once(':')?;
    Some(Mount {
        number: (major.parse().ok()?, minor.parse().ok()?),
        root: plain(fixed.get(3)?),
        point: plain(fixed.get(4)?),
        kind: rest.next()?.to_owned(),
        source: plain(rest.next().unwrap_or_default()),
    })
}

/// Reads `/proc/swaps` (proc(5)): the paths that are swapped on.
pub fn swaps(swaps: &str) -> Vec<String> {
    let lines = swaps.lines().skip(1);
    lines
        .filter_map(|line| line.split_whitespace().next())
        .map(plain)
        .collect()
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn plain(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match rest {
            [
                b'\\',
                a @ b'0'..=b'3',
                b @ b'0'..=b'7',
                c @ b'0'..=b'7',
                tail @ ..,
            ] => Some(((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), tail)),
            _ => None,
        };
        let (byte, tail) = escaped.unwrap_or((*first, tail));
        bytes.push(byte);
        rest = tail;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_of_the_kernel_are_read() {
        let text = "29 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                    35 29 7:1 / /mnt/a\\040b rw,nosuid master:1 propagate_from:2 - xfs /dev/loop1 rw,attr2\n\
                    36 29 0:45 /export /efs rw - nfs4 127.0.0.1:/ rw,vers=4.1\n\
                    garbage\n37 29 x:1 / /b rw - xfs\n";
        let read = mounts(text);
        assert_eq!(read.len(), 3);
        assert_eq!(read[1].point, "/mnt/a b");
        assert_eq!(read[1].number, (7, 1));
        assert_eq!(
            (read[2].kind.as_str(), read[2].root.as_str()),
            ("nfs4", "/export")
        );
        let swap =
            "Filename\t\t\t\tType\t\tSize\n/dev/nvme2n1                            partition\t1048572\n";
        assert_eq!(swaps(swap), ["/dev/nvme2n1"]);
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer(text in "(?s).{0,300}", lines in "[0-9: /\\\\a-z-]{0,200}") {
            mounts(&text);
            mounts(&format!("{lines} - {lines}"));
            swaps(&text);
        }

        #[test]
        fn a_path_comes_back_as_it_was(path in "/[ -~\t\n]{0,40}") {
            let escaped: String = path.bytes().map(|byte| match byte {
                b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}"),
                other => char::from(other).to_string(),
            }).collect();
            let line = format!("35 29 7:1 / {escaped} rw - xfs /dev/loop1 rw");
            prop_assert_eq!(&mounts(&line)[0].point, &path);
        }
    }
}
