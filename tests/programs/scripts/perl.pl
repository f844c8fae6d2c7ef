# What perl does with the kernel: processes, pipes, signals, sockets, files, locks, clocks; and some of its own modules.
use strict;
use warnings;

sub try {
    my ($name, $code) = @_;
    my $said = eval { $code->() ? 'ok' : 'failed' } // ('error: ' . ($@ =~ s/\s+/ /gr));
    $said =~ s/ at \S+ line .*//;
    print "verdict\t$name\t$said\n";
}

$| = 1;
try 'fork and wait', sub { my $pid = fork // die $!; exit 7 unless $pid; waitpid($pid, 0); $? >> 8 == 7 };
try 'pipe', sub {
    pipe(my $read, my $write) or die $!;
    my $pid = fork // die $!;
    unless ($pid) { close $read; print $write "through\n"; close $write; exit 0 }
    close $write; my $line = <$read>; waitpid($pid, 0); $line eq "through\n";
};
try 'a command', sub { my $out = `echo one; echo two >&2; exit 3` ; $out eq "one\n" && $? >> 8 == 3 };
try 'open from a command', sub { open(my $command, '-|', 'seq', '1', '1000') or die $!; my @lines = <$command>; close $command; @lines == 1000 };
try 'open two ways', sub { require IPC::Open3; my $pid = IPC::Open3::open3(my $in, my $out, undef, 'cat'); print $in "x\n"; close $in; my $line = <$out>; waitpid($pid, 0); $line eq "x\n" };
try 'signal', sub { my $seen = 0; local $SIG{USR1} = sub { $seen++ }; kill 'USR1', $$ or die $!; $seen == 1 };
try 'alarm', sub { my $seen = 0; local $SIG{ALRM} = sub { $seen++ }; alarm 1; select undef, undef, undef, 3; $seen == 1 };
try 'a timer', sub { require Time::HiRes; my $seen = 0; local $SIG{ALRM} = sub { $seen++ }; Time::HiRes::setitimer(Time::HiRes::ITIMER_REAL(), 0.05, 0.05); select undef, undef, undef, 1 for 1 .. 3; Time::HiRes::setitimer(Time::HiRes::ITIMER_REAL(), 0); $seen >= 3 };
try 'a child that is killed', sub { my $pid = fork // die $!; unless ($pid) { sleep 100; exit 0 } kill 'TERM', $pid; waitpid($pid, 0); ($? & 127) == 15 };
try 'a group of processes', sub { my $pid = fork // die $!; unless ($pid) { setpgrp; sleep 100 } select undef, undef, undef, 0.3; kill '-TERM', $pid; waitpid($pid, 0); ($? & 127) == 15 };
try 'socket pair', sub { require Socket; socketpair(my $a, my $b, Socket::AF_UNIX(), Socket::SOCK_STREAM(), 0) or die $!; syswrite $a, 'hello'; sysread $b, my $text, 5; $text eq 'hello' };
try 'TCP', sub {
    require IO::Socket::INET;
    my $listener = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1') or die $@;
    my $pid = fork // die $!;
    unless ($pid) { my $client = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $listener->sockport) or exit 1; print $client "hello\n"; exit 0 }
    my $line = readline $listener->accept; waitpid($pid, 0); $line eq "hello\n";
};
try 'UDP', sub {
    require IO::Socket::INET;
    my $server = IO::Socket::INET->new(Proto => 'udp', LocalAddr => '127.0.0.1') or die $@;
    my $client = IO::Socket::INET->new(Proto => 'udp', PeerAddr => '127.0.0.1', PeerPort => $server->sockport) or die $@;
    $client->send('x'); $server->recv(my $text, 10); $text eq 'x';
};
try 'a local socket', sub {
    require IO::Socket::UNIX;
    my $server = IO::Socket::UNIX->new(Local => 'socket', Listen => 1) or die $!;
    my $client = IO::Socket::UNIX->new(Peer => 'socket') or die $!;
    my $peer = $server->accept; print $client "y\n"; close $client; my $line = <$peer>; $line eq "y\n";
};
try 'names of hosts', sub { join('.', unpack 'C4', gethostbyname('localhost') // die 'no address') eq '127.0.0.1' };
try 'names of services', sub { (getservbyname('http', 'tcp'))[2] == 80 };
try 'names of protocols', sub { (getprotobyname('tcp'))[2] == 6 };
try 'one\'s own name', sub { defined((getpwuid($<))[0]) };
try 'links', sub { open(my $file, '>', 'file') or die $!; close $file; link('file', 'hard') or die $!; symlink('file', 'soft') or die $!; (stat 'file')[3] == 2 && readlink('soft') eq 'file' };
try 'modes and times', sub { chmod 0600, 'file' or die $!; utime 1, 2, 'file' or die $!; my @stat = stat 'file'; ($stat[2] & 07777) == 0600 && $stat[9] == 2 };
try 'directories', sub { mkdir "d$_" for 1 .. 100; opendir(my $dir, '.') or die $!; my $count = grep /^d\d+$/, readdir $dir; rmdir "d$_" for 1 .. 100; $count == 100 };
try 'a named pipe', sub { require POSIX; POSIX::mkfifo('fifo', 0600) or die $!; my $pid = fork // die $!; unless ($pid) { open(my $out, '>', 'fifo'); print $out "z\n"; exit 0 } open(my $in, '<', 'fifo') or die $!; my $line = <$in>; waitpid($pid, 0); $line eq "z\n" };
try 'a lock', sub {
    require Fcntl;
    open(my $file, '>', 'lock') or die $!; flock($file, Fcntl::LOCK_EX()) or die $!;
    my $pid = fork // die $!;
    unless ($pid) { open(my $again, '>', 'lock'); exit(flock($again, Fcntl::LOCK_EX() | Fcntl::LOCK_NB()) ? 1 : 0) }
    waitpid($pid, 0); $? == 0;
};
try 'a temporary file', sub { require File::Temp; my ($file, $name) = File::Temp::tempfile(UNLINK => 1); print $file 'x'; -e $name };
try 'copies and trees', sub { require File::Copy; require File::Path; File::Path::make_path('a/b/c'); File::Copy::copy('file', 'a/b/c/file') or die $!; File::Path::remove_tree('a') >= 3 };
try 'waiting for events', sub { pipe(my $read, my $write) or die $!; require IO::Select; my $select = IO::Select->new($read); return 0 if $select->can_read(0); syswrite $write, 'x'; $select->can_read(1) == 1 };
try 'a terminal of one\'s own', sub {
    require POSIX;
    open(my $front, '+<', '/dev/ptmx') or die $!;
    my $number = pack('i', 0);
    ioctl($front, 0x40045431, $number) or die $!; # TIOCSPTLCK
    ioctl($front, 0x80045430, $number) or die $!; # TIOCGPTN
    my $pid = fork // die $!;
    unless ($pid) {
        POSIX::setsid(); open(my $back, '+<', '/dev/pts/' . unpack('i', $number)) or POSIX::_exit(1);
        open(my $tty, '>', '/dev/tty') or POSIX::_exit(2);
        syswrite $tty, 'to the terminal'; POSIX::_exit(0);
    }
    waitpid($pid, 0); my $text = ''; $? == 0 && sysread($front, $text, 100) && $text eq 'to the terminal';
};
try 'limits and priority', sub { require POSIX; my $before = getpriority(0, 0); POSIX::nice(1) or die $!; getpriority(0, 0) == $before + 1 };
try 'random numbers', sub { open(my $file, '<', '/dev/urandom') or die $!; read($file, my $bytes, 32) == 32 };
try 'digests', sub { require Digest::SHA; Digest::SHA::sha256_hex('abc') =~ /^ba7816bf/ };
try 'text of the world', sub { require Encode; length(Encode::decode('UTF-8', "\xe4\xb8\xad\xe6\x96\x87")) == 2 };
try 'compression', sub { require IO::Compress::Gzip; require IO::Uncompress::Gunzip; my $in = 'x' x 100000; IO::Compress::Gzip::gzip(\$in, \my $packed) or die; IO::Uncompress::Gunzip::gunzip(\$packed, \my $out) or die; $out eq $in };
try 'local time', sub { require POSIX; POSIX::strftime('%Y', localtime 86400 * 400) eq '1971' };
try 'System V shared memory', sub { my $id = shmget(0, 4096, 0600 | 01000) // die $!; shmctl($id, 0, 0); 1 };
try 'threads', sub { require Config; return 1 unless $Config::Config{useithreads}; require threads; my @threads = map { my $n = $_; threads->create(sub { $n * $n }) } 1 .. 8; my $sum = 0; $sum += $_->join for @threads; $sum == 204 };
