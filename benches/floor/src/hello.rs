//! The least that a static Rust program can do: what `start`, `state` and `kill` are measured by.

fn main() {
    println!("hello");
}
