//! A [`Graph`] → a program. Jumps of BPF lead forward only, conditional ones over at most 255 instructions. So it is
//! written from its end: whatever an instruction leads to has its place already, and what is too far gets a jump, or a
//! copy of the verdict, near by.

use libc::sock_filter;

use super::graph::{Graph, Id, Jump, Operation};

pub fn program(graph: &Graph, root: Id) -> Vec<sock_filter> {
    let places = vec![None; graph.len()];
    let mut layout = Layout { graph, code: Vec::with_capacity(2 * graph.len()), near: places.clone(), home: places };
    layout.place(root);
    layout.code.reverse();
    layout.code
}

struct Layout<'g> {
    graph: &'g Graph,
    /// Last instruction first.
    code: Vec<sock_filter>,
    /// Of each operation.
    home: Vec<Option<usize>>,
    /// The same, or the last jump that leads there.
    near: Vec<Option<usize>>,
}

/// The farthest a conditional jump leads.
const FAR: usize = u8::MAX as usize;

impl Layout<'_> {
    fn place(&mut self, id: Id) {
        if self.home[id as usize].is_some() {
            return;
        }
        let instruction = match self.graph.operation(id) {
            Operation::Return(verdict) => instruction(libc::BPF_RET | libc::BPF_K, verdict),
            Operation::Load(offset, next) => {
                self.follow(next);
                instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
            }
            Operation::And(mask, next) => {
                self.follow(next);
                instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask)
            }
            Operation::Jump { jump, operand, yes, no } => {
                self.place(no);
                self.place(yes);
                let (jt, jf) = self.reach(yes, no);
                sock_filter { jt, jf, ..instruction(libc::BPF_JMP | code(jump) | libc::BPF_K, operand) }
            }
        };
        self.put(id, instruction);
        self.home[id as usize] = self.near[id as usize];
    }

    fn put(&mut self, id: Id, instruction: sock_filter) {
        self.near[id as usize] = Some(self.code.len());
        self.code.push(instruction);
    }

    /// The operation is what comes next.
    fn follow(&mut self, id: Id) {
        self.place(id);
        if self.near[id as usize] != self.code.len().checked_sub(1) {
            self.relay(id);
        }
    }

    /// How far both are from the instruction that is about to be put.
    fn reach(&mut self, yes: Id, no: Id) -> (u8, u8) {
        loop {
            match (self.distance(yes), self.distance(no)) {
                (far, _) if far > FAR => self.relay(yes),
                (_, far) if far > FAR => self.relay(no),
                (yes, no) => return (yes as u8, no as u8),
            }
        }
    }

    fn distance(&self, id: Id) -> usize {
        self.near[id as usize].map_or(0, |place| self.code.len() - 1 - place)
    }

    fn relay(&mut self, id: Id) {
        let over = self.home[id as usize].map_or(0, |home| self.code.len() - 1 - home);
        let relay = match self.graph.operation(id) {
            Operation::Return(verdict) => instruction(libc::BPF_RET | libc::BPF_K, verdict),
            _ => instruction(libc::BPF_JMP | libc::BPF_JA, over as u32),
        };
        self.put(id, relay);
    }
}

fn code(jump: Jump) -> u32 {
    match jump {
        Jump::Equal => libc::BPF_JEQ,
        Jump::Greater => libc::BPF_JGT,
        Jump::GreaterOrEqual => libc::BPF_JGE,
        Jump::AnyBitSet => libc::BPF_JSET,
    }
}

fn instruction(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}
