# Checks fwbroker on a Windows machine: installs, loads, stages, reads, refuses, unloads. See docs/windows.md.
# Run elevated, in the folder that holds fwbroker.inf, fwbroker.sys, fwbroker.cat and fwbctl.exe.
param(
    [Parameter(Mandatory = $true)] [string] $Image
)
$ErrorActionPreference = 'Stop'
$failed = 0
$passed = 0

function Check([string] $Name, [scriptblock] $Body) {
    try {
        $ok = & $Body
    } catch {
        $ok = $false
        Write-Host "      $_"
    }
    if ($ok) { $script:passed++; Write-Host "ok    $Name" } else { $script:failed++; Write-Host "FAIL  $Name" }
}

# fwbctl exits with 0 when the driver said yes and 1 when it refused.
function Refused([string[]] $Arguments) {
    & .\fwbctl.exe @Arguments 2>$null | Out-Null
    return $LASTEXITCODE -eq 1
}

$roots = Join-Path $env:SystemRoot 'Firmware'
New-Item -ItemType Directory -Force -Path $roots | Out-Null
$file = Join-Path $roots (Split-Path -Leaf $Image)
Copy-Item -Force $Image $file
$expected = (Get-FileHash -Algorithm SHA256 $file).Hash

Check 'the package installs' {
    pnputil /add-driver fwbroker.inf /install | Out-Host
    $LASTEXITCODE -eq 0
}
Check 'the filter loads' { & .\fwbctl.exe load; $LASTEXITCODE -eq 0 }
Check 'a second load is refused' { Refused @('load') }
Check 'FltMgr lists the filter' { (fltmc filters | Out-String) -match 'FwBroker' }
Check 'staging returns the SHA-256 that Windows computes' {
    $staged = & .\fwbctl.exe --json stage $file | ConvertFrom-Json
    ($LASTEXITCODE -eq 0) -and (($staged | Out-String -Width 4096).ToUpper().Contains($expected))
}
Check 'reading gives the bytes of the file' {
    $copy = [IO.Path]::GetTempFileName()
    & .\fwbctl.exe read $file -o $copy
    $same = (Get-FileHash -Algorithm SHA256 $copy).Hash -eq $expected
    Remove-Item $copy
    $same
}
Check 'a missing file is refused' { Refused @('read', (Join-Path $roots 'no-such-file.rom')) }
Check 'a directory is refused' { Refused @('read', $roots) }
Check 'a stream is refused' { Refused @('read', "${file}:stream") }
Check 'a file outside the roots is refused' { Refused @('read', "$env:SystemRoot\System32\drivers\etc\hosts") }
Check 'dot-dot is refused' { Refused @('read', "\??\$roots\..\System32\drivers\etc\hosts") }
Check 'a UNC path is refused' { Refused @('read', '\\localhost\C$\Windows\win.ini') }
Check 'unstaging works' { & .\fwbctl.exe unstage $file; $LASTEXITCODE -eq 0 }
Check 'the filter unloads' { & .\fwbctl.exe unload; $LASTEXITCODE -eq 0 }
Check 'FltMgr no longer lists the filter' { (fltmc filters | Out-String) -notmatch 'FwBroker' }

Write-Host "$passed passed, $failed failed"
exit [int]($failed -ne 0)
