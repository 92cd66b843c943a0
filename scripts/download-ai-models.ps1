#Requires -Version 5.1
<#
.SYNOPSIS
Downloads the models of the five tasks onto this machine, for Docker Compose or a network without Internet.

.DESCRIPTION
-Help tells all. scripts/download-ai-models.sh is the same for bash. It needs Python 3.11, 3.12 or 3.13, or uv.

.PARAMETER Names
Tasks and models to download. Without any: all five tasks.

.PARAMETER Folder
Where to put them.

.PARAMETER DryRun
List files and sizes, and write nothing.

.PARAMETER AcceptLicences
Accept the licences that must be accepted (XTTS v2: non-commercial use only), without being asked.

.PARAMETER Verify
Hash models that are there already, and mend them.

.PARAMETER Help
Tell all.

.EXAMPLE
.\scripts\download-ai-models.ps1 -DryRun

.EXAMPLE
.\scripts\download-ai-models.ps1 speech-to-text image-to-text -Folder D:\models
#>
[CmdletBinding(PositionalBinding = $false)]
param(
    [Parameter(Position = 0, ValueFromRemainingArguments = $true)]
    [string[]] $Names = @(),
    [string] $Folder = 'models',
    [switch] $DryRun,
    [switch] $AcceptLicences,
    [switch] $Verify,
    [switch] $Help
)

Set-StrictMode -Version 3.0
# Windows PowerShell takes what a program writes to standard error for an error of its own.
$ErrorActionPreference = 'Continue'

# The first Python that will do, as a command and its arguments; nothing if there is none.
function Find-Python {
    $check = 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))'
    foreach ($command in @('python3', 'python', 'py')) {
        if (Get-Command $command -CommandType Application -ErrorAction SilentlyContinue) {
            & $command -c $check 2>&1 | Out-Null
            if ($LASTEXITCODE -eq 0) { return $command }
        }
    }
    if (Get-Command 'uv' -CommandType Application -ErrorAction SilentlyContinue) {
        $found = & uv python find 3.11 2>$null
        if ($LASTEXITCODE -ne 0) {
            & uv python install 3.11 2>&1 | Out-Host
            $found = & uv python find 3.11
        }
        if ($LASTEXITCODE -eq 0) { return $found }
    }
    return $null
}

$python = Find-Python
if (-not $python) {
    [Console]::Error.WriteLine('error: install Python 3.11, 3.12 or 3.13, or uv, which brings one.')
    exit 2
}

# A backslash at the end would escape the quotation mark that Windows PowerShell puts after a path with spaces.
if ($Folder.Length -gt 3) { $Folder = $Folder.TrimEnd('\', '/') }
$options = @('--folder', $Folder)
if ($DryRun) { $options += '--dry-run' }
if ($AcceptLicences) { $options += '--accept-licences' }
if ($Verify) { $options += '--verify' }
if ($Help) { $options += '--help' }

$env:AI_MODELS_PROGRAM = 'download-ai-models.ps1'
& $python "$PSScriptRoot/lib/ai_models/start.py" @options @Names
exit $LASTEXITCODE
